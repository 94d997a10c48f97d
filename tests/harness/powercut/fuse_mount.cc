#define FUSE_USE_VERSION 31
#include "tests/harness/powercut/fuse_mount.h"

#include <fcntl.h>
#include <fuse3/fuse.h>
#include <linux/fs.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

namespace sluice::powercut {

// What is open, by the number that the kernel has for it. A cut takes the mount away from under the
// kernel, which then releases nothing: it goes with the mount. One thread: that of the loop.
struct FuseMount::Session {
  explicit Session(VolatileFs& fs) : fs(fs) {}
  VolatileFs& fs;
  std::unordered_map<uint64_t, VolatileFs::Node> open;
  uint64_t last = 0;
};

namespace {

FuseMount::Session& TheSession() {
  return *static_cast<FuseMount::Session*>(fuse_get_context()->private_data);
}
VolatileFs& Fs() { return TheSession().fs; }

VolatileFs::Node& Handle(fuse_file_info* info) { return TheSession().open.at(info->fh); }

// The node of an open file where there is one, else the path's.
int NodeOf(const char* path, fuse_file_info* info, VolatileFs::Node* node) {
  if (info != nullptr && info->fh != 0) {
    *node = Handle(info);
    return 0;
  }
  return path == nullptr ? -ESTALE : Fs().Lookup(path, node);
}

void Keep(fuse_file_info* info, VolatileFs::Node node) {
  FuseMount::Session& session = TheSession();
  info->fh = ++session.last;
  session.open.emplace(info->fh, std::move(node));
}

void* Init(fuse_conn_info*, fuse_config* config) {
  config->hard_remove = 1;  // a removed file that is open lives on in its handle
  config->nullpath_ok = 1;
  config->use_ino = 1;
  // A rename or a cut must be seen at once.
  config->entry_timeout = 0;
  config->attr_timeout = 0;
  config->negative_timeout = 0;
  return fuse_get_context()->private_data;
}

int GetAttr(const char* path, struct stat* out, fuse_file_info* info) {
  VolatileFs::Node node;
  if (const int error = NodeOf(path, info, &node); error != 0) return error;
  FileStat stat;
  if (const int error = Fs().Stat(node, &stat); error != 0) return error;
  std::memset(out, 0, sizeof(*out));
  out->st_ino = stat.number;
  out->st_mode = stat.mode;
  out->st_nlink = stat.folder ? 2 : 1;
  out->st_size = static_cast<off_t>(stat.size);
  out->st_blocks = static_cast<blkcnt_t>((stat.size + 511) / 512);
  return 0;
}

int Open(const char* path, fuse_file_info* info) {
  VolatileFs::Node node;
  if (const int error = Fs().Lookup(path, &node); error != 0) return error;
  if ((info->flags & O_TRUNC) != 0) {
    if (const int error = Fs().Truncate(node, 0); error != 0) return error;
  }
  Keep(info, std::move(node));
  return 0;
}

int Create(const char* path, mode_t mode, fuse_file_info* info) {
  VolatileFs::Node node;
  if (const int error = Fs().Create(path, mode, &node); error != 0) return error;
  Keep(info, std::move(node));
  return 0;
}

int Release(const char*, fuse_file_info* info) {
  TheSession().open.erase(info->fh);
  return 0;
}

int Read(const char*, char* out, size_t size, off_t offset, fuse_file_info* info) {
  return Fs().Read(Handle(info), static_cast<size_t>(offset), size, out);
}

int Write(const char*, const char* bytes, size_t size, off_t offset, fuse_file_info* info) {
  return Fs().Write(Handle(info), static_cast<size_t>(offset), {bytes, size});
}

int Truncate(const char* path, off_t size, fuse_file_info* info) {
  VolatileFs::Node node;
  if (const int error = NodeOf(path, info, &node); error != 0) return error;
  return Fs().Truncate(node, static_cast<size_t>(size));
}

int Chmod(const char* path, mode_t mode, fuse_file_info* info) {
  VolatileFs::Node node;
  if (const int error = NodeOf(path, info, &node); error != 0) return error;
  return Fs().SetMode(node, mode);
}

int Utimens(const char*, const struct timespec*, fuse_file_info*) { return 0; }

int Sync(const char* path, int, fuse_file_info* info) {
  VolatileFs::Node node;
  if (const int error = NodeOf(path, info, &node); error != 0) return error;
  return Fs().Sync(node);
}

int MakeFolder(const char* path, mode_t mode) { return Fs().MakeFolder(path, mode); }
int Unlink(const char* path) { return Fs().Remove(path, false); }
int RemoveFolder(const char* path) { return Fs().Remove(path, true); }

int Rename(const char* from, const char* to, unsigned flags) {
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) != 0) return -EINVAL;
  return Fs().Rename(from, to, flags != 0);
}

int ReadFolder(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info* info,
               fuse_readdir_flags) {
  VolatileFs::Node node;
  if (const int error = NodeOf(path, info, &node); error != 0) return error;
  std::vector<std::string> names;
  if (const int error = Fs().List(node, &names); error != 0) return error;
  for (const char* name : {".", ".."}) fill(buffer, name, nullptr, 0, fuse_fill_dir_flags(0));
  for (const std::string& name : names) {
    fill(buffer, name.c_str(), nullptr, 0, fuse_fill_dir_flags(0));
  }
  return 0;
}

int StatFs(const char*, struct statvfs* out) {
  std::memset(out, 0, sizeof(*out));
  out->f_bsize = out->f_frsize = 4096;
  out->f_blocks = uint64_t{64} << 20;
  out->f_bfree = out->f_bavail = uint64_t{63} << 20;
  out->f_namemax = 255;
  return 0;
}

constexpr fuse_operations Operations() {
  fuse_operations operations = {};
  operations.init = Init;
  operations.getattr = GetAttr;
  operations.open = Open;
  operations.create = Create;
  operations.release = Release;
  operations.read = Read;
  operations.write = Write;
  operations.truncate = Truncate;
  operations.chmod = Chmod;
  operations.utimens = Utimens;
  operations.fsync = Sync;
  operations.opendir = Open;
  operations.releasedir = Release;
  operations.fsyncdir = Sync;
  operations.readdir = ReadFolder;
  operations.mkdir = MakeFolder;
  operations.unlink = Unlink;
  operations.rmdir = RemoveFolder;
  operations.rename = Rename;
  operations.statfs = StatFs;
  return operations;
}

}  // namespace

std::unique_ptr<FuseMount> FuseMount::Make(VolatileFs& fs, const std::string& mount_point,
                                           std::string* error) {
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "powercut");
  static const fuse_operations operations = Operations();
  auto session = std::make_unique<Session>(fs);
  struct fuse* made = fuse_new(&args, &operations, sizeof(operations), session.get());
  fuse_opt_free_args(&args);
  if (made == nullptr) {
    *error = "libfuse refuses its arguments";
    return nullptr;
  }
  if (fuse_mount(made, mount_point.c_str()) != 0) {
    *error = "cannot mount at " + mount_point + ": " + std::strerror(errno);
    fuse_destroy(made);
    return nullptr;
  }
  std::unique_ptr<FuseMount> mount(new FuseMount());
  mount->session_ = std::move(session);
  mount->fuse_ = made;
  mount->mount_point_ = mount_point;
  mount->thread_ = std::thread([made] { fuse_loop(made); });
  return mount;
}

FuseMount::FuseMount() = default;

FuseMount::~FuseMount() {
  // The loop sleeps in a read of the device, which fails when the file system is gone.
  fuse_exit(fuse_);
  umount2(mount_point_.c_str(), MNT_DETACH);
  thread_.join();
  fuse_unmount(fuse_);  // sees that it is unmounted, and frees what is left
  fuse_destroy(fuse_);
}

}  // namespace sluice::powercut
