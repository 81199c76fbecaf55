"""What a build log shows of the output of BuildKit 0.14 and of MLflow 3: both real."""

from servery_builder.domain.build_output import of_buildkit, of_model

ENVIRONMENT_LAYER = """\
#0 building with "default" instance using docker driver
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 304B done
#1 DONE 0.0s
#2 [internal] load .dockerignore
#2 transferring context: 2B done
#2 DONE 0.0s
#3 [internal] load metadata for docker.io/library/servery-worker:0.1.0
#3 DONE 0.0s
#4 [internal] load build context
#4 ...
#5 [1/2] FROM docker.io/library/servery-worker:0.1.0
#5 CACHED
#4 [internal] load build context
#4 transferring context: 237.39MB 5.0s
#4 transferring context: 764.66MB 14.4s done
#4 DONE 14.7s
#6 [2/2] COPY --chown=0:0 [./, /var/lib/servery/artifacts/environments/bd9a5f2cb05bec05189e5ce097286bea/]
#6 DONE 9.1s
#7 exporting to image
#7 exporting layers
#7 exporting layers 4.0s done
#7 writing image sha256:0556aa68f512f6c535aa4e204412e2bb9304dbb3eba1cb4bd3a9bdf017412ce0 done
#7 naming to docker.io/servery/environment:c6a82883746475a5711424c6cf643fb9 done
#7 DONE 4.0s
"""
FAILED = """\
#6 [2/2] COPY --chown=0:0 [./, /models/m/]
#6 ERROR: failed to copy files: copy file range failed: no space left on device
------
 > [2/2] COPY --chown=0:0 [./, /models/m/]:
------
WARNING: No output specified with docker-container driver.
"""
VERIFICATION = """\
/environments/f65e/lib/python3.11/site-packages/mlflow/pyfunc/utils/data_validation.py:187: UserWarning: \x1b[33mAdd type hints to the `predict` method to enable data validation and automatic signature inference during model logging. Check https://mlflow.org/docs/latest/model/python_model.html#type-hint-usage-in-pythonmodel for more details.\x1b[0m
  color_warning(
predicting the input example
/models/m/code/own.py:3: UserWarning: the column is deprecated
  warnings.warn(
Traceback (most recent call last):
"""  # noqa: E501 - as it is printed


def shown(of, output: str) -> list[str]:
    return [line for line in map(of, output.splitlines()) if line is not None]


def test_of_buildkit_there_is_how_far_a_large_copy_is():
    assert shown(of_buildkit, ENVIRONMENT_LAYER) == [
        "transferring context: 237.39MB 5.0s",
        "transferring context: 764.66MB 14.4s done",
        "exporting layers 4.0s done",
    ]


def test_what_is_no_ordinary_step_stays():
    assert shown(of_buildkit, FAILED) == [
        "ERROR: failed to copy files: copy file range failed: no space left on device",
        *FAILED.splitlines()[2:],
    ]


def test_advice_on_how_to_log_a_model_is_left_out_and_what_the_model_prints_is_not():
    assert shown(of_model, VERIFICATION) == VERIFICATION.splitlines()[2:]
