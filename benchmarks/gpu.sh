#!/usr/bin/env bash
# Runs benchmarks/gpu.py, or with BENCHMARK=NAME another one, on a lent machine, from the root of the checkout, with the wheels that gpu.py names in .whl.
# The package is not installed there: its name is that of its folder, so a link gives it one, and two small files say
# which codecs it brings for zarr.
set -eo pipefail
site=$(mktemp -d) named=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target $site .whl/*.whl
mkdir -p $named/textdiff-0.dist-info
ln -sfn "$PWD" $named/textdiff
printf 'Metadata-Version: 2.1\nName: textdiff\nVersion: 0\n' > $named/textdiff-0.dist-info/METADATA
printf '[zarr.codecs]\ntextdiff.upsample = textdiff.cache.codec:Upsample\ntextdiff.int8 = textdiff.cache.int8:Int8\n' > $named/textdiff-0.dist-info/entry_points.txt
export PYTHONPATH=$named:$site PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
python3 benchmarks/${BENCHMARK:=gpu}.py "$@" --out "$OUT/$BENCHMARK.json" 2>&1 | tee "$OUT/$BENCHMARK.log"
