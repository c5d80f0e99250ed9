"""Metadata of the package: what it needs, what it brings, and its command.

Two stacks share this file. TFX 1.16 is the last one whose wheels run on an older C library
(glibc < 2.38) and it needs Python 3.10; TFX 1.21 is today's. One marker splits them.
Development tools are a dependency group in pyproject.toml, hashed pins lie in requirements/.
"""

from setuptools import find_packages, setup

COMPAT = "python_version < '3.11'"
MODERN = "python_version >= '3.11'"

setup(
    name="fraud-pipeline",
    version="0.1.0",
    description="A TFX pipeline from a folder of card transactions to a served fraud model",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(
        include=[
            f"{name}{below}"
            for name in (
                "data",
                "features",
                "models",
                "monitoring",
                "pipeline",
                "schema",
                "serving",
            )
            for below in ("", ".*")
        ]
    ),
    package_data={
        "data": ["sample/**/*"],
        "schema": ["*.pbtxt"],
        "pipeline": ["**/*.html", "**/*.css", "**/*.js", "**/*.svg"],
    },
    install_requires=[
        f"tfx==1.16.0; {COMPAT}",
        f"tfx==1.21.0; {MODERN}",
        # tfx-bsl 1.16 imports dill, which Beam no longer brings.
        f"dill; {COMPAT}",
        # TFX 1.21 no longer brings tensorboard, and the Keras callback fails without it.
        "tensorboard",
        "apache-beam",
        "keras",
        "ml-metadata",
        "numpy",
        "pandas",
        "protobuf",
        "pyarrow",
        "pyyaml",
        "tensorflow",
        "tensorflow-data-validation",
        "tensorflow-metadata",
        "tensorflow-model-analysis",
        "tensorflow-transform",
        "tfx-bsl",
    ],
    entry_points={"console_scripts": ["fraud-pipeline = pipeline.cli:main"]},
)
