// Cache-line aligned arrays for buffers that the kernels read and write.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace qe {

template <typename T>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(size_t size) { reset(size); }
  AlignedArray(AlignedArray&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  AlignedArray(const AlignedArray&) = delete;
  AlignedArray& operator=(const AlignedArray&) = delete;
  ~AlignedArray() { std::free(data_); }

  // Drops the contents; the new ones are not initialized. Throws std::bad_alloc and is then empty.
  void reset(size_t size) {
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
    void* memory = nullptr;
    if (size > 0 && posix_memalign(&memory, 64, size * sizeof(T)) != 0) throw std::bad_alloc();
    data_ = static_cast<T*>(memory);
    size_ = size;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qe
