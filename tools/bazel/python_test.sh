#!/usr/bin/env bash
# Runs a Python test with the system's interpreter; see python.bzl.
exec python3 -B "$@"
