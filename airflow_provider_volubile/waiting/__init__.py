"""From accepted requests to outcomes.

===================  ==================================================================================
module               question it answers
===================  ==================================================================================
``watches``          What does one task wait for, and is it over?
``polling``          What is asked in one round, when is the next, and which errors end a wait?
``shared_poll``      How do all deferred waits of an account share one round?
``find_calls``       Which calls are ours?
``outcomes``         What became of each recipient?
``ending``           What does a wait report, and when is its end a failure?
===================  ==================================================================================
"""
