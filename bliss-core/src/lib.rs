//! Schemas, feature tables, models, requests and scores: zero-copy layouts and a read path that never allocates.
