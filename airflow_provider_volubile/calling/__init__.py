"""From a table of people to accepted requests.

===================  ==================================================================================
module               question it answers
===================  ==================================================================================
``recipients``       Who is called, and which rows are rejected, with which reason?
``tables``           How is a CSV, JSON or Parquet file read into rows?
``schedule``         When may a campaign call, and whom does it call again?
``kinds``            What differs between campaigns, bulk and single calls? Which agent can call?
``journal``          What of this task was sent, accepted, refused, or is unknown?
``sending_parts``    What is sent next, and what does its answer mean?
``unknown_outcome``  How is a request whose answer was lost asked about or given up?
``stopping``         What happens to campaigns when somebody stops the task?
``installation``     What tells this Airflow from another one on the same account?
``handles``          What does a submission hand over through XCom?
===================  ==================================================================================
"""
