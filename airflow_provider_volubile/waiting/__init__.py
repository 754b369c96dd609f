"""From accepted requests to outcomes.

===================  ==================================================================================
module               question it answers
===================  ==================================================================================
``watches``          What does one task wait for, and is it over?
``polling``          When is the next round of a wait due, and is it over?
``poll_round``       What is asked in one round?
``fault_policy``     Which faults end a wait, and when?
``shared_poll``      How do all deferred waits of an account share one round?
``find_calls``       Which calls are ours?
``outcomes``         What became of each recipient?
``ending``           What does a wait report, and when is its end a failure?
===================  ==================================================================================
"""
