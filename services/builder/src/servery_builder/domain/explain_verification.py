"""Say in one plain sentence why a model did not work when it was tried.

Pure: from what verification answered to a failure code and a sentence that names what is wrong and what to do.
"""

import re

from servery_builder.domain.build import Failure
from servery_builder.domain.explain import sentence_part
from servery_common.contracts.builds import FailureCode
from servery_common.contracts.replicas import ModelVerified


def explain_verification(verified: ModelVerified, *, in_container: bool = False) -> Failure:
    """Explain a model that did not load or did not predict its input example.

    ``in_container``: it was verified in one, and its replicas will be containers, too, without a way to the network.
    """
    error = verified.error.strip() or "no error message"
    told = f"{verified.error}\n{verified.traceback}"
    if in_container and (_NO_NETWORK.search(told) or _NO_WORKSPACE.search(told)):
        return _needs_network(verified, told)
    missing = re.search(r"No module named '(?P<module>[^']+)'", verified.error)
    if missing:
        package = missing["module"].partition(".")[0]
        package = _PACKAGE_OF_MODULE.get(package, package)
        return Failure(
            FailureCode.IMPORT_ERROR,
            f"No module named '{missing['module']}': add {package} to the model's pip requirements"
            f" (extra_pip_requirements=[{package!r}]) and log it again.",
        )
    if re.match(r"(?:ImportError|ModuleNotFoundError)\b", verified.error) or verified.stage == "import":
        return Failure(
            FailureCode.IMPORT_ERROR,
            f"Importing the model's packages failed ({sentence_part(error)}): pin the versions it was trained with"
            " in its pip requirements and log it again.",
        )
    if verified.stage == "start":
        return Failure(
            FailureCode.INTERNAL_ERROR,
            f"A worker could not start a process for the model ({sentence_part(error)}): put that right on the"
            " worker's machine, then deploy again.",
        )
    if verified.stage == "predict":
        return Failure(
            FailureCode.PREDICT_FAILED,
            f"The model loaded but failed on its own input example ({sentence_part(error)}): fix predict() or the"
            " input example and log it again.",
        )
    return Failure(
        FailureCode.LOAD_FAILED,
        f"The model could not be loaded ({sentence_part(error)}): load it with mlflow.pyfunc.load_model in an"
        " environment with its own requirements, fix it and log it again.",
    )


_NO_NETWORK = re.compile(
    r"name resolution|Name or service not known|NameResolutionError|nodename nor servname"
    r"|Network is unreachable|No route to host|Failed to establish a new connection"
    r"|Could not resolve host|couldn't connect to 'https?:|Cannot connect to host",
    re.IGNORECASE,
)
_NO_WORKSPACE = re.compile("cannot configure default credentials", re.IGNORECASE)
"""What a bare `WorkspaceClient()` says in a container, which is given no address and no token of the workspace."""
_HOSTS = re.compile(r"host='([^']{1,253})'"), re.compile(r"https?://([^/\s'\"<>:]{1,253})")
"""How an error names the host that was not reached; the surer one first."""


def _needs_network(verified: ModelVerified, told: str) -> Failure:
    found = next((host.group(1) for pattern in _HOSTS if (host := pattern.search(verified.error))), "out")
    if _NO_WORKSPACE.search(told):
        # The host in that message is the one of the client's documentation.
        found = "the workspace"
    predicts = verified.stage == "predict"
    return Failure(
        FailureCode.PREDICT_FAILED if predicts else FailureCode.LOAD_FAILED,
        f"The model reaches {found} over the network when it {'predicts' if predicts else 'loads'}, and replicas in"
        " containers have no way out. Download what it needs before you log it, hand it to"
        " mlflow.pyfunc.log_model(artifacts={'data': PATH}), read it from context.artifacts['data'], and log it again"
        " (docs/compose.md, Models without a network).",
    )


# Modules whose distribution has another name, where the obvious advice would be wrong.
_PACKAGE_OF_MODULE = {
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "pkg_resources": "setuptools",
    "attr": "attrs",
    "Crypto": "pycryptodome",
    "google": "protobuf",
    "faiss": "faiss-cpu",
    "sentence_transformers": "sentence-transformers",
}
