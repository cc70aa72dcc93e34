# make demo   build the environment, then draw a small world and run every stage on it
# make test   build the environment, then run every test
# make docs   write what the docs read off the code, then build the site into site/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDIO := .venv-label-studio
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint docs bench clean

demo: $(VENV)/.train
	PATH="$(CURDIR)/$(BIN):$$PATH" bash pipelines/demo.sh

test: $(VENV)/.test $(STUDIO)/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadgroup --durations=10

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/python docs/make_tables.py
	$(BIN)/python docs/make_cli.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: SHELL := /bin/bash
bench: .SHELLFLAGS := -eo pipefail -c
bench: $(VENV)/.test $(STUDIO)/.made
	cd experiments && for script in startup oriented_boxes every_real_input masks_on_real_boxes builtin_on_real_boxes adapter_on_real_boxes adapter_box_noise scenes_rate sam_speed encoder_rate many_records many_objects brush_codec ground_shown_twice masks_in_parquet full_build recipe training_input review_server risk_order data_engine_loop kill_and_resume; do \
		echo "== $$script"; ./kept.sh $$script ../$(BIN)/python $$script.py; done
	cd experiments && ./kept.sh faults_planted ../$(BIN)/python -m faults --planted && ./kept.sh faults ../$(BIN)/python -m faults --every 9 --seconds 30
	keep=$$(mktemp -d); trap "rm -rf $$keep" EXIT; cd experiments; python=../$(BIN)/python; \
		./kept.sh backbone_on_scenes $$python backbone_on_scenes.py $$keep/swin-small.safetensors; \
		for script in crobim_on_scenes masks_are_worth models_compared; do ./kept.sh $$script $$python $$script.py --keep $$keep; done; \
		./kept.sh masks_after_learning $$python masks_are_worth.py --keep $$keep/after --init-from $$keep/crobim-small-8000-5800-2 \
			--split $$keep/scenes-8000/4-export/release/split.csv --config small --steps 400 --seeds 1; \
		./kept.sh ablations $$python models_compared.py --keep $$keep --models crobim,table5,table6,table7; \
		./kept.sh models_on_nwpu $$python models_compared.py --keep $$keep --data nwpu --init-from $$keep/scenes-tiny-1000/table
	cd experiments && ./kept.sh crobim_step bash -euc 'python=../$(BIN)/python; $$python crobim_step.py; for change in "" \
		recipe.per_image=1 "mid.levels=[1,2,3,4] --set mid.pyramid=false" "side=96 --set recipe.coarse_side=0"; do \
		$$python crobim_step.py --config small --batch 16 $${change:+--set $$change}; done'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "risbench needs Python 3.11 or later; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.train: $(VENV)/.base
	$(PIP) -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) -c constraints.txt -e '.[train,review,release,docs,dev]'
	touch $@

# Label Studio's server fights with our packages over versions: an environment of its own, made as `risbench review serve` makes it
$(STUDIO)/.made: $(VENV)/.base risbench/review/labelstudio/label_studio.txt
	$(BIN)/python -c 'from pathlib import Path; from risbench.review.labelstudio.environment import make_environment; make_environment(Path("$(STUDIO)"))'
	touch $@

clean:
	rm -rf $(VENV) $(STUDIO) demo-workspace
