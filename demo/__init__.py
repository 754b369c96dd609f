"""The README's demonstration: Airflow and the simulator in a folder of their own."""
