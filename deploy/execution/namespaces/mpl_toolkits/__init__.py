"""The namespace package `mpl_toolkits` as a regular one: see `raypath.deploy.execution.namespaces`."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
