//! Builds every part in order, and owns the stop order and its deadline.
