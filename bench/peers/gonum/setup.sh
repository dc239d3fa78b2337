#!/bin/sh
exec "$(dirname "$0")/../_golang/setup.sh"
