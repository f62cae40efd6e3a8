"""llama.cpp's server out of the wheel xllamacpp, for a model, on a port, with a key."""

import sys
import time

import xllamacpp

model, port, key = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = model
params.port = int(port)
params.api_keys = [key]
params.n_ctx = 1024
params.n_parallel = 1
# More would wait for each other on a machine that is busy.
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
while True:
    time.sleep(3600)
