//! A directory of published features and models: read features and scores, or publish them, in one type each.
