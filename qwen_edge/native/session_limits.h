// Sizes that session.cpp and transformer.cpp agree on.
#pragma once

namespace qe {

// Rows of one sequence attended together: enough to reuse a block of keys, few enough for the
// cache. engine/memory_estimate.py has the same number.
constexpr int kBlockRows = 32;
// A long context of a single row is cut into parts of this many positions (whole KV chunks), so
// that all threads share it, unless there are at least kTasksPerThread pieces for each thread
// anyway.
constexpr int kSplitPositions = 1024;
constexpr int kTasksPerThread = 16;
// Gate and up are computed by the activation group of the next projection. A call of few rows,
// which waits for memory, reads up to kFeedForwardGroups of a matrix before it turns to the other.
constexpr int kFeedForwardColumns = 32;
constexpr int kFeedForwardGroups = 4;
// Tiles are shared out in twos, because kernels multiply two at a time.
constexpr int kTileStep = 2;
// A call of so many rows has phases of a millisecond and more.
constexpr int kLongPhaseRows = 16;
// Smaller calls have long phases if those of the last one took so many seconds on average, as with
// slow kernels or a large model.
constexpr double kLongPhase = 500e-6;
// Phases of a layer, and by the embedding and the head.
constexpr int kPhasesPerLayer = 11;
// An adapter's part of a layer may have a phase for each of its inputs.
constexpr int kAdapterPhases = 4;
constexpr int kPhasesPerCall = 3;

}  // namespace qe
