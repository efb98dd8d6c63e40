"""Scores forecasts: ``loss_scoring.core`` has the losses, ``loss_scoring.service`` serves them.

In a checkout the two are links to the folders ``core`` and ``service`` beside this one; in a wheel
they are folders of this package. So nothing is installed under a name as common as ``core``.
"""
