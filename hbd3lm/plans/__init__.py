"""Planners that write abstract plans, and the measures of how abstract a plan is."""
