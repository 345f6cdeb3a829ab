"""Which pairs each tier would be asked about, as far as the store, or the source alone, can tell beforehand."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl

from flows import stages as st
from flows.config import CurationConfig
from flows.curation import Curator
from flows.method import Setup, Tier
from infra.artifacts import Directory, Table, materialise, read_table
from infra.runner import StageRun
from tasks.adopt_names import *  # placeholder
