"""What a running job shows to the outside.

Begin with `telemetry.exporter`: metrics and spans by OpenTelemetry.
"""
