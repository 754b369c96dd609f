"""Records of the API as files in any store Airflow knows. Data flows one way, from the first module to the last.

===================  ==================================================================================
module               question it answers
===================  ==================================================================================
``days``             Which days of calls does a run write?
``calls``            How do the calls of days become files?
``transcripts``      How do transcripts become files, and what of those that are late?
``recording_files``  How do recordings become files?
``fetching``         How are many objects fetched at once?
``columns``          Which columns has each table?
``flatten``          Which extracted answers become columns of their own?
``spool``            Where are rows sorted before they are written?
``formats``          How do rows become bytes?
``files``            Which files does an export consist of, and what does its manifest say?
``store``            How does a file get into a store, whole or not at all?
``export_report``    What became of each call of an export?
``outcomes_table``   What became of each recipient, as a table?
===================  ==================================================================================
"""
