//! Flags, `TASKWIRE_*`, a TOML file and defaults become the typed options of every part.
