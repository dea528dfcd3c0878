/* A module of the account database (nsswitch.conf(5)) that never answers, or only fails: NAME says how it is called, and
 * STATUS, if given, is what it answers. Only the questions that podsec's worker may put. */
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <unistd.h>

#define JOIN(name, question) _nss_##name##_##question
#define QUESTION(name, question) JOIN(name, question)

static enum nss_status answer(int *error)
{
#ifdef STATUS
	*error = ENOENT;
	return STATUS;
#else
	for (;;)
		pause();
#endif
}

enum nss_status QUESTION(NAME, getpwuid_r)(uid_t uid, struct passwd *found, char *buffer, size_t length, int *error)
{
	return answer(error);
}

enum nss_status QUESTION(NAME, getpwnam_r)(const char *name, struct passwd *found, char *buffer, size_t length, int *error)
{
	return answer(error);
}

enum nss_status QUESTION(NAME, getgrnam_r)(const char *name, struct group *found, char *buffer, size_t length, int *error)
{
	return answer(error);
}

enum nss_status QUESTION(NAME, getgrgid_r)(gid_t gid, struct group *found, char *buffer, size_t length, int *error)
{
	return answer(error);
}

enum nss_status QUESTION(NAME, initgroups_dyn)(const char *user, gid_t group, long *start, long *size, gid_t **groups,
                                               long limit, int *error)
{
	return answer(error);
}
