"""How people use it: configurations, the command line, figures and tables of runs."""
