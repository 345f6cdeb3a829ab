"""Find the nearest passages of each query by inner product, for a block of queries and a block of the corpus.

The corpus goes by part by part, so memory depends on the size of a part and on the number of hits. While one part is
compared with the queries, the next one is read and hashed.
"""

import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks import schemas
from tasks.mining.asked import Asked, ask
from tasks.mining.corpus import Frames, ahead, read_slices
from tasks.mining.nearest import QUERIES, WIDTH, Nearest, Scores
