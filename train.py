"""Train a token classifier on long sequences: compose the config, check it, hand it to longtag.run.

python train.py                        the shipped genome, crops of 100,000 tokens
python train.py pattern=random seed=1  any option of conf/ by its name; --help lists them
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from longtag.entry import readable_errors, start
from longtag.folder import RunFolder

CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(config: DictConfig) -> float | None:
    hydra_config = HydraConfig.get()
    with readable_errors(CONF, hydra_config.mode), RunFolder(Path(hydra_config.runtime.output_dir)) as folder:
        from longtag.run import run

        return run(config, hydra_config, folder)


if __name__ == "__main__":
    start(main, CONF)
