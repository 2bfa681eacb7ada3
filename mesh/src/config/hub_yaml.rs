//! `hub.yaml`.
