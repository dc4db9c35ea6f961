//! Plans and progress, from topologies alone.
