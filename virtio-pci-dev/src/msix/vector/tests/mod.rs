//! The vector, by a model.

mod model;
