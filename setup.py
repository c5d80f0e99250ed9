"""Metadata of the package: its requirements, packages and command.

Two stacks share this file. TFX 1.16 is the last one whose wheels run on an older C library
(glibc before 2.39) and it needs Python 3.10; TFX 1.21 is current. One marker separates them.
Development tools are a dependency group in pyproject.toml; hashed pins are in requirements/.
"""

from setuptools import find_packages, setup

# Both stacks pin the versions that TFX itself was released with.
COMPAT = """
    tfx==1.16.0 tfx-bsl==1.16.1 ml-metadata==1.16.0 tensorflow-data-validation==1.16.1
    tensorflow-metadata==1.16.1 tensorflow-model-analysis==0.47.1 tensorflow-transform==1.16.0
    tensorflow==2.16.2 tensorboard==2.16.2 keras<3.13 apache-beam==2.74.0 protobuf==3.20.3
    pyarrow==10.0.1 pandas==1.5.3 numpy<2 pyyaml pydantic>=2.10 kfp-pipeline-spec<0.3
    tensorflow-serving-api<3
""".split()
MODERN = """
    tfx==1.21.0 tfx-bsl==1.21.0 ml-metadata==1.21.0 tensorflow-data-validation==1.21.0
    tensorflow-metadata==1.21.0 tensorflow-model-analysis==0.52.0 tensorflow-transform==1.21.0
    tensorflow==2.21.0 tensorboard<3 keras<4 apache-beam==2.77.0 protobuf<7
    pyarrow<19 pandas<3 numpy<3 pyyaml pydantic>=2.10
    kfp-pipeline-spec tensorflow-serving-api<3
""".split()

# The newest that MLflow accepts, so that the extra fits the pins.
MODERN += ["importlib-metadata<10"]

# The same on both stacks: serving, state, pages and plots, lineage events. TensorBoard imports
# pkg_resources, which setuptools 81 removed.
COMMON = """
    fastapi uvicorn[standard] httpx jinja2 lmdb openlineage-python orjson plotly
    prometheus-client redis[hiredis] setuptools<81
""".split()

# Traces. JSON, because the exporter of protobuf needs a newer protobuf than TFX 1.16 accepts.
OTEL = """
    opentelemetry-exporter-otlp-json-http>=0.66b1 opentelemetry-instrumentation-asgi>=0.66b1
""".split()

# tfx-bsl 1.16 imports dill, which Beam no longer installs.
COMPAT += ["dill"]

# The last versions of Google's packages that accept protobuf 3.20. uv finds them by itself; without
# these bounds, pip tries version after version for more than half an hour.
COMPAT += """
    google-api-core<2.30 google-cloud-aiplatform<1.166 google-cloud-bigquery-storage<2.37
    google-cloud-bigtable<2.37 google-cloud-build<3.36 google-cloud-datastore<2.24
    google-cloud-dlp<3.35 google-cloud-kms<3.12 google-cloud-language<2.20
    google-cloud-monitoring<2.30 google-cloud-pubsub<2.37 google-cloud-recommendations-ai<0.11
    google-cloud-resource-manager<1.17 google-cloud-secret-manager<2.27 google-cloud-spanner<3.65
    google-cloud-videointelligence<2.19 google-cloud-vision<3.13 googleapis-common-protos<1.74
    grpc-google-iam-v1<0.14.4 grpcio-status<1.49 proto-plus<1.28 tf-keras<2.17
""".split()

setup(
    name="fraud-pipeline",
    version="0.1.0",
    description="A TFX pipeline from a folder of card transactions to a served fraud model",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # fraud/ has links to the folders next to it: models/ is fraud.models. See docs/adr/0010.
    packages=find_packages(include=["fraud", "fraud.*"]),
    package_data={"fraud.schema": ["*.pbtxt"], "fraud.report": ["*.css", "templates/*.html"]},
    install_requires=[
        *COMMON,
        *(f"{package}; python_version < '3.11'" for package in COMPAT),
        *(f"{package}; python_version >= '3.11'" for package in MODERN),
    ],
    extras_require={"mlflow": ["mlflow>=3"], "otel": OTEL},
    entry_points={
        "console_scripts": [
            "fraud-pipeline = fraud.pipeline.cli:main",
            "fraud-beam-worker = fraud.pipeline.runners.beam_worker:main",
        ]
    },
)
