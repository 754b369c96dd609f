"""Records of the API as files in any store Airflow knows.

Data flows one way: answers → rows of a stated schema (:mod:`.rows`, :mod:`.schemas`) → sorted on local
disk (:mod:`.spool`) → bytes (:mod:`.formats`) → files and their manifest (:mod:`.files`) → :mod:`.store`.
"""
