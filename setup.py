"""Lists the packages: those of the library, and the workflow's files, see pyproject.toml."""

from setuptools import find_packages, setup

FILES = [f"diem_workflow.{folder}" for folder in ("config", "envs", "workflow")]

setup(packages=[*find_packages("workflow", include=["diem", "diem.*"]), *FILES])
