# The server of `python -m stages.serve`; docs/serve.md says how to build and run it.
# The version of Python for which requirements-cpu.lock has torch.
FROM python:3.11-slim

WORKDIR /app
COPY requirements.txt requirements-serve.txt requirements.lock requirements-cpu.lock ./
# An index that has torch's build for CPUs, where the configured one lacks it; otherwise the default build is taken.
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir "$(sed -n 's/^\(pip==[^ ]*\).*/\1/p' requirements.lock)" \
    && (pip install --no-cache-dir --no-deps -r requirements-cpu.lock || true) \
    && pip install --no-cache-dir -r requirements.txt -r requirements-serve.txt -c requirements.lock \
    && useradd --create-home server

COPY stages stages
COPY metrics metrics
# What of the model is here; the rest comes by a volume.
COPY models models

USER server
ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --start-period=2m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
CMD ["python", "-m", "stages.serve", "--host", "0.0.0.0"]
