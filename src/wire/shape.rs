//! The shape of every request, as data, and the walk that checks a frame against it.
