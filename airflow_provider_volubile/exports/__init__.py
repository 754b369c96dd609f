"""Records of the API as files in any store Airflow knows.

Data flows one way: answers → rows, by one list of columns per table (:mod:`.columns`) → sorted on local disk
(:mod:`.spool`) → bytes (:mod:`.formats`) → files and their manifest (:mod:`.files`) → :mod:`.store`.
Which days of calls a run writes: :mod:`.days`. Many requests at once: :mod:`.fetching`.
"""
