"""The metadata is in setup.cfg; extension modules would be listed here."""

from setuptools import setup

setup()
