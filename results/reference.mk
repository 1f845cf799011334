# `make reference`: everything that results/README.md says, from nothing. Each step goes on where
# it was stopped. DEVICE=cuda trains on a GPU; what is set here may be changed, and is then no
# longer the reference. `make reference-in-small` runs every line of it on next to nothing.

WAMSIM := $(BIN)/wamsim
WORK   := results/runs/reference
SHIPPED := policies
PAGE   := results
DEVICE ?= cpu
BATCH  ?= 32
STEPS  ?= 5000
TRIALS ?= 20
BACKBONE_STEPS ?= 4000
BACKBONE_BATCH ?= 64
DEMONSTRATED ?= 100
PRACTISED ?= 60
TASKS  ?=
OBJECT := -s tabletop_object $(TASKS)

# Trials from 100 on: none of them is ever evaluated. Every task has its own states.
DEMOS    := $(WORK)/demonstrations
PRACTICE := $(WORK)/practice
FIRST    := --data $(DEMOS) --device $(DEVICE)
LEARN    := --data $(DEMOS) --data $(PRACTICE) --device $(DEVICE)

# Families whose backbone learns to look before actions are learnt. Variants share it, but for
# the one that is to learn no video (fastwam's learns video along) and the one in which pictures
# attend to words.
BACKBONES    := smolvla_world fastwam cosmos spatialvla
OWN_BACKBONE := fastwam.no_video_cotrain spatialvla.deep_fusion

# Every n-th env step is a sample, of 120,000. Latents of videos are computed once for every
# sample, which takes a quarter of an hour of a core for 20,000 of fastwam's.
EVERY         := 4
EVERY_fastwam := 6

FASTWAM    := fastwam joint idm no_video_cotrain
COSMOS     := direct
SMOLVLA    := base late_gated_xattn flare_tokens multi_layer_inject action_conditioned_prophet
SPATIALVLA := late_fusion_gemma late_fusion_llama deep_fusion
FLOW_HWM   := base split_attention

# Variants that imagine nothing, or not through a tokenizer, have none to take.
NO_TOKENIZER := smolvla_world.base $(SPATIALVLA:%=spatialvla.%) spatialvla

# What would forget how to look while it learns to act goes on looking (DECISIONS 53).
LOOKS   := --looks 13500
LOOKING := fastwam cosmos spatialvla

POLICIES := $(FASTWAM:%=fastwam.%) $(COSMOS:%=cosmos.%) $(SMOLVLA:%=smolvla_world.%) \
            $(SPATIALVLA:%=spatialvla.%)
FAMILIES := fastwam cosmos smolvla_world spatialvla flow_hwm
MODELS   := $(POLICIES) $(FLOW_HWM:%=flow_hwm.%)

name = $(subst .,:,$(1))
family = $(firstword $(subst ., ,$(1)))
variant = $(lastword $(subst ., ,$(1)))

.PHONY: reference reference-in-small reference-demonstrations reference-practice \
        reference-planning reference-other-groups $(MODELS:%=train-%) $(MODELS:%=evaluate-%)

reference: $(MODELS:%=evaluate-%) reference-planning reference-other-groups
	$(WAMSIM) eval -p random $(OBJECT) -n $(TRIALS) --out $(WORK)/evaluations/random
	$(WAMSIM) eval -p oracle $(OBJECT) -n $(TRIALS) --out $(WORK)/evaluations/oracle
	$(BIN)/python -m policies.sharing $(FAMILIES:%=$(SHIPPED)/%/reference)
	mkdir -p $(PAGE)
	$(WAMSIM) bench --policies --sizes tiny --json $(PAGE)/latency.json
	$(WAMSIM) results $(WORK)/evaluations --out $(PAGE) --latency $(PAGE)/latency.json \
	  $(foreach m,$(MODELS),--training $(SHIPPED)/$(call family,$(m))/reference/$(call variant,$(m))) \
	  --reproduce "make reference"

# Every line of `reference` on next to nothing. What comes of it means nothing and replaces nothing:
# evaluations are of the weights that are shipped.
SMALL := results/runs/reference-in-small
reference-in-small: install
	$(MAKE) reference WORK=$(SMALL) SHIPPED=$(SMALL)/policies PAGE=$(SMALL)/page TRIALS=1 TASKS="-t 0" \
	  DEMONSTRATED=2 PRACTISED=6 LOOKS="--looks 50" STEPS=2 BATCH=2 BACKBONE_STEPS=2 BACKBONE_BATCH=2 \
	  EVERY=20 EVERY_fastwam=20 $(patsubst %,TOKENIZER_%="--steps 2 --batch 2",$(FAMILIES))

reference-demonstrations: install
	$(WAMSIM) eval -p oracle --set noise=0.3 --set noise_floor=0.5 --set push=0.5 \
	  $(OBJECT) -n $(DEMONSTRATED) --first 100 --seed 1 --out $(DEMOS)

# Where a first learner gets to, with what the oracle would do there: all models learn from it.
# It learns from demonstrations alone, on the backbone that its family's variants share.
$(WORK)/first/checkpoint/config.json: $(WORK)/backbone-smolvla_world/checkpoint/config.json
	$(WAMSIM) train -p smolvla_world:late_gated_xattn $(FIRST) --every $(EVERY) --out $(WORK)/first \
	  --steps $(STEPS) --batch $(BATCH) --backbone $(WORK)/backbone-smolvla_world/checkpoint \
	  --tokenizer $(WORK)/tokenizer-smolvla_world/checkpoint

reference-practice: $(WORK)/first/checkpoint/config.json
	$(WAMSIM) eval -p practice --set learner=smolvla_world:late_gated_xattn --set weights=$(WORK)/first/checkpoint \
	  $(OBJECT) -n $(PRACTISED) --first 200 --seed 2 --out $(PRACTICE)

# Tokenizers learn first.
$(WORK)/tokenizer-%/checkpoint/config.json: | reference-demonstrations
	$(WAMSIM) train -p $* --part tokenizer $(FIRST) --every $(EVERY) --out $(WORK)/tokenizer-$* $(TOKENIZER_$*)

TOKENIZER_fastwam       := --steps 2200 --batch 4 --lr 4e-3
TOKENIZER_cosmos        := --steps 2000 --batch 8 --lr 4e-3
TOKENIZER_flow_hwm      := --steps 2200 --batch 4 --lr 4e-3
TOKENIZER_smolvla_world := --steps 2000 --batch 16 --lr 1e-3

# Then backbones, which look through the tokenizers. That of smolvla_world comes before practice.
tokenizer_of = $(if $(filter $(NO_TOKENIZER),$(1)),,$(WORK)/tokenizer-$(call family,$(1))/checkpoint)

define backbone
$(WORK)/backbone-$(1)/checkpoint/config.json: $(patsubst %,%/config.json,$(call tokenizer_of,$(1))) \
  $(if $(filter smolvla_world,$(1)),,| reference-practice)
	$$(WAMSIM) train -p $(call name,$(1)) --part backbone $(LOOKS) \
	  $(if $(filter smolvla_world,$(1)),$$(FIRST),$$(LEARN)) \
	  --every $(or $(EVERY_$(call family,$(1))),$(EVERY)) --out $(WORK)/backbone-$(1) \
	  --steps $(BACKBONE_STEPS) --batch $(BACKBONE_BATCH) --lr 2e-3 $(patsubst %,--tokenizer %,$(call tokenizer_of,$(1)))
endef
$(foreach b,$(BACKBONES) $(OWN_BACKBONE),$(eval $(call backbone,$(b))))

backbone_of = $(if $(filter $(BACKBONES),$(call family,$(1))),$(WORK)/backbone-$(if \
  $(filter $(OWN_BACKBONE),$(1)),$(1),$(call family,$(1)))/checkpoint)

# What alone is new, as fastwam's action expert, bears a higher rate (DECISIONS 48).
RATES_fastwam := --taken-lr 0.5 --lr 2e-3
RATES_cosmos  := --taken-lr 0.5 --lr 2e-3

# These imagine further than they execute by default; their ends only come where all is executed.
WHOLE_CHUNKS := fastwam.fastwam

define model
train-$(1): reference-practice $(patsubst %,%/config.json,$(call tokenizer_of,$(1))) \
  $(patsubst %,%/config.json,$(call backbone_of,$(1)))
	$$(WAMSIM) train -p $(call name,$(1)) $$(LEARN) --every $(or $(EVERY_$(call family,$(1))),$(EVERY)) \
	  --out $$(WORK)/$(1) --steps $$(STEPS) --batch $$(BATCH) --half \
	  $(patsubst %,--backbone %,$(call backbone_of,$(1))) $(RATES_$(call family,$(1))) \
	  $(if $(filter $(LOOKING),$(call family,$(1))),$(LOOKS)) \
	  $(patsubst %,--tokenizer %,$(call tokenizer_of,$(1)))
	mkdir -p $(SHIPPED)/$(call family,$(1))/reference/$(call variant,$(1))
	rm -f $(SHIPPED)/$(call family,$(1))/reference/$(call variant,$(1))/*.index.json
	cp $$(WORK)/$(1)/checkpoint/*.json $$(WORK)/$(1)/checkpoint/*.safetensors \
	  $(SHIPPED)/$(call family,$(1))/reference/$(call variant,$(1))/

ifneq ($(call family,$(1)),flow_hwm)
evaluate-$(1): train-$(1)
	$$(WAMSIM) eval -p $(call name,$(1)) $(OBJECT) -n $$(TRIALS) --imagine --out $$(WORK)/evaluations/$(1)
	$(if $(filter $(WHOLE_CHUNKS),$(1)),$$(WAMSIM) eval -p $(call name,$(1)) --set execute=8 \
	  $(OBJECT) -n 2 --imagine --out $$(WORK)/evaluations/$(1).whole)
else
evaluate-$(1): train-$(1) train-$$(BESIDE)
	$$(WAMSIM) eval -p $$(call name,$$(BESIDE)) $(OBJECT) -n 2 --imagine \
	  --imagine-with $(call name,$(1)) --out $$(WORK)/evaluations/$(1)
endif
endef

# Whose actions a world model imagines, and who is shown what it never learnt.
BESIDE := smolvla_world.flare_tokens
$(foreach m,$(MODELS),$(eval $(call model,$(m))))

reference-planning: train-cosmos.direct
	$(WAMSIM) eval -p cosmos:planning $(OBJECT) -n 2 --imagine --out $(WORK)/evaluations/cosmos.planning

reference-other-groups: train-$(BESIDE)
	$(WAMSIM) eval -p $(call name,$(BESIDE)) -s tabletop_spatial,tabletop_goal,tabletop_long $(TASKS) -n 2 \
	  --out $(WORK)/evaluations/$(BESIDE).other_groups

# Genuine LIBERO, which needs its assets: the oracle's demonstrations on published initial states
# 20 to 34 of every task, and evaluation on 0 to 9. It goes on from what was learnt on tabletop.
.PHONY: reference-libero

LIBERO_DEMOS := $(WORK)/libero_demonstrations
LIBERO_MODEL := $(WORK)/fastwam.libero_object
LIBERO_LEARN := --data $(LIBERO_DEMOS) --device $(DEVICE) --every 6

reference-libero: train-fastwam.fastwam
	$(WAMSIM) eval -p oracle --set noise=0.3 --set noise_floor=0.5 --set push=0.5 \
	  -s libero_object -n 15 --first 20 --seed 1 --out $(LIBERO_DEMOS)
	$(WAMSIM) train -p fastwam --part tokenizer $(LIBERO_LEARN) --steps 1000 --batch 4 --lr 3e-3 \
	  --tokenizer $(WORK)/tokenizer-fastwam/checkpoint --out $(WORK)/tokenizer-fastwam-libero
	$(WAMSIM) train -p fastwam $(LIBERO_LEARN) --looks 4000 --steps 2500 --batch $(BATCH) \
	  $(RATES_fastwam) --half --backbone $(WORK)/fastwam.fastwam/checkpoint \
	  --tokenizer $(WORK)/tokenizer-fastwam-libero/checkpoint --out $(LIBERO_MODEL)
	$(WAMSIM) eval -p fastwam --set checkpoint=$(LIBERO_MODEL)/checkpoint -s libero_object -n 10 \
	  --out $(WORK)/evaluations/fastwam.libero_object
