"""The arms of an experiment, one file each: what is compared with what.

An arm is a function from a `Task` to what the Trainer is given beside model and data, or to what
predicts in its place (see `task.prepare`). It is added by a file in this folder; a package of one's
own adds one through an entry point (see `registry`):

    @register("arm", "upper", help="every row in capitals")
    def upper(task):
        from mixup_hf.evaluation.experiment.task import rewritten

        return rewritten(task, lambda texts: [text.upper() for text in texts])
"""
