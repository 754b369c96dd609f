"""Volubile over HTTP. Knows nothing of Airflow.

===================  ==================================================================================
module               question it answers
===================  ==================================================================================
``client``           Which method do I call? One method for each route.
``routes``           Which routes are there, with which scope, and which may be repeated?
``wire``             What does the public documentation leave open, and what do we assume?
``models``           What does an answer hold, as a typed object?
``answers``          How does the body of an answer become a model?
``paging``           How is a list read page by page while it grows?
``auth``             Which key or token does a request carry?
``sending``          May this request be sent again, and when does the client give up?
``transport``        How does one request leave this machine, and did it?
``headers``          What do ``Retry-After`` and ``X-RateLimit-*`` say?
``rate_window``      May a request be sent now, or is the account's window full?
``addresses``        Is this URL the API, a proxy, this machine or a private network?
``recordings``       How is the audio of a call found and streamed?
``url_redaction``    How do our URLs stay out of logs, traces and error trackers?
===================  ==================================================================================
"""
