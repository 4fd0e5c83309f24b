#!/usr/bin/env bash
set -euo pipefail
apt-get update
xargs --arg-file /var/requirements/system_requirements.txt apt-get install -y --no-install-recommends
