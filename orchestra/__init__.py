"""orchestra: an embeddable runtime for orchestrations that live for ever."""
