"""Lines of an export that each query part writes once, and their merge."""
