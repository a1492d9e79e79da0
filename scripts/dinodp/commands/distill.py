"""``dinodp distill``: train a small network that predicts a backbone's embeddings of your normal scans."""

import argparse

from dinodp.commands.arguments import SCANS, Commands, add_command, add_pattern, file_lock, require_new, say
from dinodp.commands.fit import add_backbone, add_scans
from dinodp.errors import InputError
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging
from dinodp.options.distillation import DistillationOptions
from dinodp.scans.detecting.settings import Settings

DESCRIPTION = """\
Train a student: a small network that predicts what a backbone says of your healthy scans, several times faster.

Its folder is used wherever a backbone is: dinodp fit healthy/ --backbone STUDENT --out model.h5
It takes the place of its backbone for scans like these only. docs/student.md says what it costs and loses."""
