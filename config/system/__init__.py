"""What runs, with which versions, settings, figures and jobs; and why there may be no anomalies."""
