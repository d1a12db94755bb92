"""The CRM workbench: honest scores, forecasts and audits over any CRM export."""

__version__ = "0.1.0"
