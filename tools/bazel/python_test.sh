#!/usr/bin/env bash
# Runs a Python test with the system's interpreter; see python.bzl. Modules are imported by their path in the tree.
PYTHONPATH="$PWD" exec python3 -B "$@"
