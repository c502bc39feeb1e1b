//! The built programs against the local AWS, each test in an account of its own.
