"""Cohorts: many labelled synthetic slides from one plan, made to be shared."""
