"""The sections of the page, one function each: from a run to what it has to show, or None."""
