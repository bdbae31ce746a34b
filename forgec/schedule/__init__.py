"""Schedules of GPU kernels' loops: machine models, a constraint model, a checker and a simulator. No IR in here."""
