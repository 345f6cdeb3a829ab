"""Reading a large source file by file, each a part of its own, and handing what was read to ingest."""
